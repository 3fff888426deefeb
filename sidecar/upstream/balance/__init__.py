"""How the server of a request is chosen: one file an algorithm, one interface (`base.Balance`)."""
