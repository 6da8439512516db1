"""Training: lanes (threads over micro-batches), optimisers, schedules, checkpoints, and the loop that ties them."""
