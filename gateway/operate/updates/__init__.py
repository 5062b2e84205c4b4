"""ebCore Agreement Update, as the one who asks and the one who is asked [as4 4.11].

    rule      whether a request is refused, taken at once, or waits for an operator; pure
    staging   a partner's next certificates into a new revision of the agreements
    desk      the consumer of what arrives
    work      what the ledger says is due
    asking    our own requests
    deciding  what an operator says to those that wait
"""
