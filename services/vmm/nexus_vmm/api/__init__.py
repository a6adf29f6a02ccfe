"""What callers ask and are told: checks and conversions of the protos."""
