"""The ways to keep the promise of `streams.log`."""
