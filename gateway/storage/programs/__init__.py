"""Enrollments, customers by reference and consents; and, apart from those, who customers are."""
