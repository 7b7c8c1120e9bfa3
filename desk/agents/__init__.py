"""What agents work in: the queue, the conversation, and what is done from either."""
