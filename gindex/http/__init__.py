"""What a client and a service agree on: calls, answers, and which hosts are this machine."""
