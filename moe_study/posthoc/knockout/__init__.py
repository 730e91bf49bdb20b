"""Causal tests of a trained run: its routes are changed, and the loss on a labelled probe says what that breaks.

The finding `knockout` (runs/findings.py; `find_finding(..., "knockout", {})`) has one row for each layer, intervention,
label and domain:

layer           block that decides, from 0; with scope=global all layers that follow it are changed with it; -1: all
                layers that decide, at once
kind            what was done to the routes, one of
                  remove         every pick of `expert` is gone, its weight zero; other picks keep their weights
                  reroute        the same, and the token's next best expert takes its place
                  swap           picks of `expert` go to `other`, and the other way round, weights as they were
                  lose_best      each token loses the expert of its largest weight
                  one_expert     all picks of all tokens go to `expert`, weights as they were
                  random_routes  each token has as many picks as before, of experts drawn at random; mean over draws
expert, other   numbers of experts; -1 where the kind names none
label, domain   a label of the probe's documents (language, topic) and one of its values; both "" for all tokens
change          of the loss, nats per token, changed less unchanged; positive: it hurts
low, high       its 95% interval, whole documents resampled
null_mean, null_low, null_high
                the same done to random experts of equal load: mean over draws, and where 95% of draws lie
excess, excess_low, excess_high
                change less the null's mean, document by document, and its 95% interval
off_target, off_target_domain
                the largest change among the other domains of the label, and which one it is
p               of "the change is no larger than the null's, or no larger than in some other domain", Holm-adjusted over
                the experts and domains of all layers (kind=remove)
needed          p is at most 0.05 (kind=remove; false elsewhere)
tokens, documents
                how much of the domain there is: tokens with a loss
share, share_overall
                of the domain's (of all) assignments that the expert had before (remove and reroute; else NaN)

Not a number stands where there is nothing: no null (random_routes; one draw has no band), a domain of one document (no
interval), a label with one domain (nothing off target).
"""
