"""The command line: `gateway <noun> <verb>`, and the processes of `gateway run`."""
