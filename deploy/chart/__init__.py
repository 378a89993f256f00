"""What of the chart is made: its schema and the tables of its README. `make chart` writes both."""
