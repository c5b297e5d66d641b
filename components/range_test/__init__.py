"""The learning-rate range test of Smith (2017), "Cyclical Learning Rates for Training Neural Networks", section 3.3."""
