"""The message service handler, in the verbs of ebMS3: submit, send, receive, deliver, notify.

This room joins the rooms below it (`as4`, `keys`, `pmodes`, `store`, `transport`) and is
the only one that knows them all. `receive.py` and `send.py` are the two ladders; each
reads top to bottom in the order in which things happen to a message.
"""
