"""Molecules as the files of QM9 write them: gdb_1 as published, and others in its pattern."""

METHANE = """5
gdb 1\t157.7118\t157.70997\t157.70699\t0.\t13.21\t-0.3877\t0.1171\t0.5048\t35.3641\t0.044749\t-40.47893\t-40.476062\t-40.475117\t-40.498597\t6.469\t
C\t-0.0126981359\t 1.0858041578\t 0.0080009958\t-0.535689
H\t 0.002150416\t-0.0060313176\t 0.0019761204\t 0.133921
H\t 1.0117308433\t 1.4637511618\t 0.0002765748\t 0.133922
H\t-0.540815069\t 1.4475266138\t-0.8766437152\t 0.133923
H\t-0.5238136345\t 1.4379326443\t 0.9063972942\t 1.33923*^-1
1341.307\t1341.3284\t1341.365\t1562.6731\t1562.7453\t3038.3205\t3151.6034\t3151.6788\t3151.7078
C\tC\t
InChI=1S/CH4/h1H4\tInChI=1S/CH4/h1H4
"""  # noqa: E501
# A header of text, lines that begin with an index, and a last line of text, as in the authors' file.
LIST = "\n3054 molecules\n".replace("3054", "Some") + " Index  Smiles\n-----\n     2  CN  [NH3]  1.0\n  4  C#C\n-----\n"


def numbered(n):
    return METHANE.replace("gdb 1\t", f"gdb {n}\t")
