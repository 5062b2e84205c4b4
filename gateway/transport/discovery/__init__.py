"""Find a partner at the moment of sending: BDXL names the publisher, SMP the access point [as4 4.10]."""
