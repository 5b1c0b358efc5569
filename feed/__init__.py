"""The market-data door: ITCH 5.0 in MoldUDP64 packets on UDP multicast, and its listener."""
