"""Looking at a model: summary, trace, attention, plots, tables, multiply-adds."""
