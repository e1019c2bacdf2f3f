"""Money as postings: from what a program pays to what each customer is paid and what the maker keeps."""
