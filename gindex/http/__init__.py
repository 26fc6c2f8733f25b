"""The client's side of HTTP: requests, answers, and the hosts that are this machine."""
