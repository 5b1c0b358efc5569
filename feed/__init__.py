"""The market-data door: ITCH 5.0 messages in MoldUDP64 packets on UDP multicast, and their listener."""
