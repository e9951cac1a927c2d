"""What two processes share, and the proof: `nsbox why` and `nsbox xlate`."""
