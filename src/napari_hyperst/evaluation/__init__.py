"""Methods on the same splits become tables and figures."""
