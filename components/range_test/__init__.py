"""The learning-rate range test of Smith (2017), "Cyclical Learning Rates for Training Neural Networks", section 3.3."""

MIN_RATE, MAX_RATE, STEPS = 1e-6, 10.0, 300  # the default range, and how many steps lead through it
