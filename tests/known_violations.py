"""Rules of rules.py that are still violated, and where. The list can only shrink: test_rules.py turns red for a violation that is
not listed here, and for a line here that is no longer true. Remove such a line with the change that mends it, or let
`python tests/rules.py` do it, which lists what violates a rule and removes the lines that are no longer true."""

KNOWN = {}
