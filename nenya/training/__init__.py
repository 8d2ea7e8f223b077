"""The run: step -> epoch -> checkpoint and curves."""
