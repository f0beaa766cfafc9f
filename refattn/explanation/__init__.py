"""What a prediction rests on: the attention, and what else can be said of every site.

The public function is refattn.explain; the package has another name because a function and a package cannot share one.
"""
