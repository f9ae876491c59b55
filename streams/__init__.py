"""What flows: messages, the log, order and delivery. Not one word of the domain."""
