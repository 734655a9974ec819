"""What people look at: numbers in words, charts, pictures, and pages from templates."""
