"""The ``cooper`` command; each subcommand imports only what it needs."""
