# %% [markdown]
# # 13b · Six more blank pages
#
# Write the rest of KTO, and two pieces of the Llama under it, on empty pages against the clock.

# %% [markdown]
# **You will be able to**
# - write the row, the batch, the reference point and the gradient of KTO without looking;
# - write causal attention and rotary positions, which are asked about any language model;
# - say how sure you are, and be right about that.
#
# **You need first** lesson [13](../13_interview.ipynb), whose section 6 tells how a page works, and for each page the
# lesson that it names.
#
# **Time** {{times}}; the pages give 55 minutes in all, so take one or two a day.

# %% [markdown]
# **Before you run anything**: tokens and a mask, the collator, the reference point, the gradient, causal attention,
# rotary positions. Which one could you not begin? Take that page first. They do not build on one another. Your tries
# and best times so far:

# %%
import math

import torch

from kto_course import calibration, interview

interview.times()

# %% [markdown]
# ## 1. Data: a row, then a batch

# %% [markdown]
# ### Page 4 · Tokens and a mask
#
# From lesson [03](../03_tokenization.ipynb). A row of feedback becomes ids and a mask. The interviewer watches the
# border between prompt and reply, and the end.

# %%
tokenize_with_mask_page = interview.drill("tokenize_with_mask")

# %% exercise="drill_tokenize_with_mask"
# the cell of exercise tokenize_with_mask

# %%
tokenize_with_mask_page.check(my_tokenize_with_mask)

# %% [markdown]
# ### Page 5 · The collator
#
# From lesson [04](../04_collator.ipynb). Rows of different lengths become a batch, and every prompt borrows a reply.

# %%
collate_kto_page = interview.drill("collate_kto")

# %% exercise="drill_collate_kto"
# the cell of exercise collate_kto

# %%
collate_kto_page.check(my_collate_kto)

# %% [markdown]
# ## 2. Two lines and a chain rule

# %% [markdown]
# ### Page 6 · The reference point
#
# From lesson [06](../06_kto_loss.ipynb). Two lines of code, four ways to get them wrong.

# %%
reference_point_page = interview.drill("reference_point")

# %% exercise="drill_reference_point"
# the cell of exercise reference_point

# %%
reference_point_page.check(my_reference_point)

# %% [markdown]
# ### Page 7 · The gradient of KTO
#
# From lesson [06](../06_kto_loss.ipynb). With pencil and chain rule, then in code.

# %%
kto_gradient_page = interview.drill("kto_gradient")

# %% exercise="drill_kto_gradient"
# the cell of exercise kto_gradient

# %%
kto_gradient_page.check(my_kto_gradient)

# %% [markdown]
# ## 3. Nothing of KTO in it, and still asked

# %% [markdown]
# ### Page 8 · Causal attention
#
# From lesson [02](../02_tiny_llama.ipynb). Nobody may look ahead.

# %%
causal_attention_page = interview.drill("causal_attention")

# %% exercise="drill_causal_attention"
# the cell of exercise causal_attention

# %%
causal_attention_page.check(my_causal_attention)

# %% [markdown]
# ### Page 9 · Rotary positions
#
# From lesson [02](../02_tiny_llama.ipynb). The position goes into the angle.

# %%
rotary_page = interview.drill("rotary")

# %% exercise="drill_rotary"
# the cell of exercise rotary

# %%
rotary_page.check(my_rotary)

# %% [markdown]
# ## 4. Seven of ten, when you say 70%
#
# In the lessons you predicted results and said how sure you were. Somebody well calibrated is right in 7 of 10 cases
# where they say 70%. In an interview that is the difference between "I am sure" and "I believe".

# %%
calibration()

# %% [markdown]
# ## Recap
#
# 1. A row: tokenize once, mask what the prompt shares, score the end token.
# 2. A batch: padding right, masks decide, every prompt borrows its neighbour's reply.
# 3. The reference point: mean first, then the clamp, no gradient.
# 4. The gradient: sign, weight, beta, and a bell that is flat on both sides.
# 5. Attention: the future gets $-\infty$ before the softmax. Rotary: position times frequency, pair by pair.

# %% [markdown]
# ## Sources
#
# The pages are exercises of lessons [02](../02_tiny_llama.ipynb), [03](../03_tokenization.ipynb),
# [04](../04_collator.ipynb) and [06](../06_kto_loss.ipynb). The minutes are our own choice.
#
# Back to [13](../13_interview.ipynb).
