"""Is an explanation to be believed? The tests of `refattn explain --validate`.

agreement      scores beside orbital populations, and baselines that know no network
faithfulness   deletion and insertion: does the prediction hang on the sites that a score names?
parameters     what is left of a score when the network's parameters are random
equivalence    equal scores for equivalent sites
robustness     stability under a rattle, and over how many sites a score is spread
study          all of these for one or several trained networks; a dict of numbers
anybody        the same tests of anybody's scores, before any model that can be called: refattn.validate
sentences      what the numbers say
report         the page, its figures, and the JSON
"""
