"""What everything with torch shares: the contracts, operators of patches, dropout, members."""
