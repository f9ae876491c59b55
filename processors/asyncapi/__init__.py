"""The AsyncAPI description of all streams and WebSockets, made from the message classes."""
