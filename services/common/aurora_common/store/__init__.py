"""Model stores: fetch a model by its URI; list and prune the published drafts."""
