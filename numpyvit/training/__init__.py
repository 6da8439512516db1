"""Training: lanes (threads over micro-batches), optimisers, schedules, and the loop that calls them."""
