"""FER-Curves: recorded learning curves of many configurations, on which methods of search are judged."""
