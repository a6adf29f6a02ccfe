import os

from nexus_guest import login


def test_image_without_files(tmp_path):
    env = login.environment(str(tmp_path / "none"), str(tmp_path / "none"))
    assert env == {
        "HOME": "/root",
        "USER": "root",
        "LOGNAME": "root",
        "SHELL": "/bin/sh",
        "PATH": login.PATH,
        "LANG": "C.UTF-8",
    }


def test_files_of_the_image(tmp_path):
    passwd = tmp_path / "passwd"
    passwd.write_text(f"x:x:99999:0::/x:/x\nbroken\nadmin:x:{os.getuid()}:0:,,,:/home/a:/bin/ash\n")
    variables = tmp_path / "environment"
    variables.write_bytes(
        b"# comment\nPATH=/opt/bin:/bin\nexport LANG='de_DE.UTF-8'\n"
        b'A="b c"\n\nnothing\n=x\nHOME=/wrong\nB=\xff\nC=a\0b\n'
    )
    env = login.environment(str(passwd), str(variables))
    assert (env["USER"], env["HOME"], env["SHELL"]) == ("admin", "/home/a", "/bin/ash")
    assert (env["PATH"], env["LANG"], env["A"]) == ("/opt/bin:/bin", "de_DE.UTF-8", "b c")
    assert os.fsencode(env["B"]) == b"\xff"
    assert "C" not in env


def test_home_that_is_not_there(tmp_path):
    assert login.home({"HOME": str(tmp_path)}) == str(tmp_path)
    assert login.home({"HOME": str(tmp_path / "no")}) == "/"
