"""What the learning and the numbers say: the pages Training and Numbers, and their charts."""
