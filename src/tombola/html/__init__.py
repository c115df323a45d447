"""The report as one HTML file: interactive plots, tables, verdicts and all that is needed to repeat a study."""
