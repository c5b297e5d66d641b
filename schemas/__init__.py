"""The curated schema of each dataset, as TFDV's text form: reviewed like code, and enforced by DataGate. No Python."""
