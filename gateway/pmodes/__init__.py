"""Agreements in human form: TOML in, `PModeSet` out.

`agreements` is what a file may say, `defaults` what a profile version says already, `expand`
makes the legs, `toml` reads files and folders, `lint` finds what is unwise or will not work.
"""
