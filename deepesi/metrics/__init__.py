"""How far an estimate is from the truth: pure functions first, torchmetrics classes second."""
