"""The tables of netd.db, as they came to be: script N brings version N to N + 1."""

from __future__ import annotations

from nexus_rpc import requests

MIGRATIONS = (
    f"""
CREATE TABLE leases (
  host INTEGER PRIMARY KEY,
  vm_id TEXT NOT NULL UNIQUE,
  tap TEXT NOT NULL UNIQUE,
  created REAL NOT NULL
);
CREATE TABLE freed (
  turn INTEGER PRIMARY KEY AUTOINCREMENT,
  host INTEGER NOT NULL UNIQUE
);
CREATE TABLE pool (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  subnet TEXT NOT NULL,
  next INTEGER NOT NULL
);
{requests.SCHEMA}
""",
    # Several networks. The one there was is "default" from now on, with its ports as they are; the
    # rest of it is filled in from the settings (an empty seed says so). A MAC is made from the
    # address, which is taken apart as JSON.
    """
CREATE TABLE policies (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  rules TEXT NOT NULL UNIQUE
);
INSERT INTO policies VALUES (1, '{"mode": "open"}'), (2, '{"mode": "none"}');
CREATE TABLE networks (
  name TEXT PRIMARY KEY,
  bridge TEXT NOT NULL,
  subnet TEXT NOT NULL,
  ipv6 TEXT NOT NULL,
  policy INTEGER NOT NULL REFERENCES policies,
  details TEXT NOT NULL,
  seed TEXT NOT NULL,
  next INTEGER NOT NULL
);
CREATE INDEX networks_by_policy ON networks (policy);
CREATE TABLE ports (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  vm_id TEXT NOT NULL UNIQUE,
  network TEXT NOT NULL REFERENCES networks,
  host INTEGER NOT NULL,
  bridge INTEGER NOT NULL,
  tap TEXT NOT NULL UNIQUE,
  mac TEXT NOT NULL UNIQUE,
  created REAL NOT NULL,
  policy INTEGER REFERENCES policies,
  details TEXT NOT NULL,
  unsettled INTEGER NOT NULL DEFAULT 0,
  UNIQUE (network, host)
);
CREATE INDEX ports_by_policy ON ports (policy);
CREATE INDEX ports_unsettled ON ports (number) WHERE unsettled;
CREATE INDEX ports_by_network ON ports (network, number);
CREATE TABLE released (
  turn INTEGER PRIMARY KEY AUTOINCREMENT,
  network TEXT NOT NULL REFERENCES networks ON DELETE CASCADE,
  host INTEGER NOT NULL,
  UNIQUE (network, host)
);
CREATE INDEX released_by_turn ON released (network, turn);
CREATE TABLE links (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  source TEXT NOT NULL REFERENCES ports (vm_id) ON DELETE CASCADE,
  target TEXT NOT NULL REFERENCES ports (vm_id) ON DELETE CASCADE,
  protocol INTEGER NOT NULL,
  ports TEXT NOT NULL,
  UNIQUE (source, target, protocol, ports)
);
CREATE INDEX links_by_target ON links (target);
CREATE TABLE publications (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  vm_id TEXT NOT NULL REFERENCES ports (vm_id) ON DELETE CASCADE,
  host_ip TEXT NOT NULL,
  host_port INTEGER NOT NULL,
  guest_port INTEGER NOT NULL,
  protocol INTEGER NOT NULL,
  UNIQUE (protocol, host_port, host_ip)
);
CREATE INDEX publications_by_vm ON publications (vm_id);
INSERT INTO networks SELECT 'default', '', subnet, '', 1, '{}', '', next FROM pool;
INSERT INTO ports (vm_id, network, host, bridge, tap, mac, created, details)
  SELECT vm_id, 'default', host, 0, tap,
    printf('02:fc:%02x:%02x:%02x:%02x',
      address >> 24 & 255, address >> 16 & 255, address >> 8 & 255, address & 255),
    created, '{}'
  FROM (
    SELECT leases.*, host
      + (json_extract(parts, '$[0]') << 24) + (json_extract(parts, '$[1]') << 16)
      + (json_extract(parts, '$[2]') << 8) + json_extract(parts, '$[3]') AS address
    FROM leases, (
      SELECT '[' || replace(substr(subnet, 1, instr(subnet, '/') - 1), '.', ',') || ']' AS parts
      FROM pool
    )
  )
  ORDER BY created, host;
INSERT INTO released (network, host) SELECT 'default', host FROM freed ORDER BY turn;
DROP TABLE leases;
DROP TABLE freed;
DROP TABLE pool;
""",
)
"""Every version of the schema there was; the list only ever grows."""
