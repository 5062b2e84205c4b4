"""The operator's verbs: one model behind the command line, the admin API and the console."""
