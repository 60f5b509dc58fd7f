"""Jobs from submission to removal: the queue, starts, stops, signals, retention."""
