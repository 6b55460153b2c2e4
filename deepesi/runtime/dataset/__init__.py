"""Many recordings: the data set as one resumable job."""
