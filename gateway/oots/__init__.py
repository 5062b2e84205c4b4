"""What the Once-Only Technical System puts inside an AS4 message.

Pure and advisory. A message is received, acknowledged and delivered whatever this room
thinks of it [oots 1.1, 2.4]: it indexes the leading document, judges the header against
the published rules, and builds the documents of an exchange for those who want to try one.
Clause keys: [tdd n] a chapter of the Technical Design Documents; [oots n] the project's OOTS notes, by section.
"""
