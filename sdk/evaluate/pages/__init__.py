"""What people look at: reports and pages of verifications and benchmarks. Nothing is measured here."""
