"""Out to partners and webhooks: one POST, and where one may go."""
