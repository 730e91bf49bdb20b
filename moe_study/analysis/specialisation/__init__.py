"""What experts attend to, in numbers, each beside what it would be by chance: arrays in, numbers out.

layer_trace    the input: one layer of one run over a labelled probe
information    mutual information of expert and label, alone and given the token id
exchanges      draws of labels between what is exchangeable
tables         the same information for thousands of draws
nulls          information against its null: excess, band, p value
rows           all of it for one run, and over seeds
points         the rows of many runs by design point, each question a family of tests
run_tables     all that is measured of one run, as the tables that its folder keeps
over_runs      those tables run by run, and by design point over seeds
sentences, answers, closing, report    what they show, in words and in files
domains        shares by domain, Jensen-Shannon distances with intervals over documents
share_nulls    a band for every share
hidden_states  what similarity of the hidden states explains by itself
load           load and its evenness, entropy and margin, co-activation, committee
agreement      routes beside other routes: saturation, paths, the label router, other seeds
knockout       what breaks by domain when routes are changed, beside random experts of equal load
knockout_points, knockout_sentences, knockout_report    the same over seeds, in words and in files
"""
