"""Prediction markets: predictions confirmed from the chain, markets resolved, winners paid to the unit."""
