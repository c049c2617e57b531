"""`femurseg report`: a result folder as one page that opens without a network and prints on two A4 pages."""
