"""The HTTP interface: requests in, commands out; reads from the read models. It decides nothing."""
